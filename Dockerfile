# pocketiqa as a server. Build the wheel first: python -m build --wheel
#
#     docker build -t pocketiqa .
#     docker run --rm -p 127.0.0.1:8000:8000 -v "$HOME/photographs:/photographs:ro" pocketiqa
#
# Inside a container the server must listen on all its addresses; who can reach it is decided by `-p` above.
FROM python:3.11-slim

WORKDIR /app
COPY constraints.txt dist/*.whl /tmp/
RUN wheel="$(echo /tmp/pocketiqa-*.whl)" \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "${wheel}[serve]" \
    && rm /tmp/pocketiqa-*.whl \
    && useradd --create-home --uid 1000 pocketiqa

USER 1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["pocketiqa", "serve", "--host", "0.0.0.0", "--port", "8000", "--allow-remote"]
CMD ["--root", "/photographs"]
