# The toolkit with a CPU build of torch: docker build -t interpretkit . && docker run --rm -v "$PWD:/work" interpretkit catalyst design
FROM python:3.11-slim

WORKDIR /opt/interpretkit
COPY . .
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu -c constraints.txt \
    && pip install --no-cache-dir -c constraints.txt ".[mlip]"

WORKDIR /work
ENTRYPOINT ["interpretkit"]
