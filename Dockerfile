# aioserve in a virtual environment, and nothing that is needed only to build it.
#
#   docker build -t aioserve .
#   docker run --rm -p 8000:8000 aioserve
#
# An image of one's own:
#
#   FROM aioserve
#   COPY app.py .
#   CMD ["app:main"]
#
# Further packages go into the same environment: USER root, RUN pip install ..., USER 10001:10001.

# Any Debian with Python 3.11 or newer and its venv module will do.
ARG BASE=python:3.13-slim

FROM ${BASE} AS builder
# Given with --build-arg where packages come from an index of one's own. pip reads it from the environment. It does not
# reach the final image, but a password in it would stay in the build's cache.
ARG PIP_INDEX_URL
# --reload has no place in an image; the other extras are small and let the flags work that need them.
ARG EXTRAS=dotenv,wsgi,yaml
WORKDIR /src
RUN python3 -m venv /opt/aioserve
COPY pyproject.toml README.md LICENSE ./
COPY aioserve aioserve
RUN /opt/aioserve/bin/pip install --no-cache-dir --disable-pip-version-check ".[${EXTRAS}]"

FROM ${BASE}
# A number, because Kubernetes can check runAsNonRoot only on a number. A name as well, because programs look up their
# own. The files stay root's: what serves should not be able to change what it serves.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin aioserve
COPY --from=builder /opt/aioserve /opt/aioserve
# A container that listens on its loopback is heard by nobody. Flags win over this variable in every form (--host,
# --bind, --uds); for a [listen] bind in a configuration file to count, set it to nothing: AIOSERVE_HOST=
ENV PATH=/opt/aioserve/bin:$PATH PYTHONUNBUFFERED=1 AIOSERVE_HOST=0.0.0.0
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# No HEALTHCHECK: only the application knows whether it is well, and a process that accepts says little. Let the
# orchestrator ask a path of the application.
ENTRYPOINT ["aioserve"]
CMD ["aioserve.example:app"]
