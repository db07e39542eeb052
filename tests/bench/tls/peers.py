"""The servers, as in ``tests.bench.servers``, with the same certificate and key. TLS 1.3 is everybody's default.

Terminators are processes beside the worker. All of a server has one core here: what they cost is seen, and not what a
second core is good for.
"""

from __future__ import annotations

from dataclasses import replace

from tests.bench.servers import PEERS

#: How each names certificate and key.
FLAGS = {
    "aioserve": ("--ssl-certfile", "--ssl-keyfile"),
    "uvicorn": ("--ssl-certfile", "--ssl-keyfile"),
    "granian": ("--ssl-certificate", "--ssl-keyfile"),
    "peregrine": ("--tls-cert", "--tls-key"),
    "hypercorn": ("--certfile", "--keyfile"),
    "gunicorn": ("--certfile", "--keyfile"),
}

#: The name in the table -> whose options they are, and what is put in the place of what.
VARIANTS = {
    "aioserve": ("aioserve", {}),
    "aioserve-ktls": ("aioserve", {"--accept single": "--accept single --ktls"}),
    # Terminators need a master, and the worker that it then has shares its socket with nobody.
    "aioserve-tls1": ("aioserve", {"--accept single": "--workers 1 --tls-processes 1"}),
    "aioserve-tls2": ("aioserve", {"--accept single": "--workers 1 --tls-processes 2"}),
    "uvicorn": ("uvicorn", {}),
    "granian": ("granian", {}),
    "peregrine": ("peregrine", {}),
    "hypercorn": ("hypercorn", {}),
    "gunicorn": ("gunicorn", {}),
}


def peers(certfile, keyfile):
    return {name: _encrypted(name, certfile, keyfile) for name in VARIANTS}


def _encrypted(name, certfile, keyfile):
    base, changes = VARIANTS[name]
    peer = PEERS[base]
    for_certificate, for_key = FLAGS[base]

    def options(port):
        # In front of the others: peregrine's end with the application.
        given = peer.options(port)
        text = " ".join([*given[:2], for_certificate, str(certfile), for_key, str(keyfile), *given[2:]])
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        return text.split()

    return replace(peer, name=name, options=options)
