"""Processes that hold the keys and speak TLS, in front of the workers; they import no application."""
