# docker build -t streamconv .
# docker run --rm --init -e HF_TOKEN -v "$PWD/models:/models" streamconv convert google/gemma-3-1b-it /models/gemma.gguf --type Q4_K_M
#
# What is fetched and unfinished jobs live in the volume: the next run goes on where this one stopped. Compiled kernels do not,
# for they are code, and a folder of models may come from anybody; `-v streamconv-kernels:/var/cache/streamconv` keeps them.
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streamconv ./streamconv
RUN pip install --no-cache-dir . && rm -rf /src/*

# Any user may run it (docker run --user): whoever comes first makes a folder of his own for kernels, and what others make there is
# not believed. With a read-only root they are compiled for one run.
RUN install -d -m 1777 /var/cache/streamconv
ENV NUMBA_CACHE_DIR=/var/cache/streamconv STREAMCONV_CACHE=/models/.cache/streamconv/models \
    HF_HOME=/models/.cache/huggingface PYTHONUNBUFFERED=1
VOLUME /models
WORKDIR /models
ENTRYPOINT ["streamconv"]
CMD ["--help"]
