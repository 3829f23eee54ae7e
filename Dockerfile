# docker build -t streamconv .
# docker run --rm --init -e HF_TOKEN -v "$PWD/models:/models" streamconv convert google/gemma-3-1b-it /models/gemma.gguf --type Q4_K_M
#
# What is fetched, the compiled kernels and unfinished jobs live in the volume: the next run goes on where this one stopped.
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streamconv ./streamconv
RUN pip install --no-cache-dir . && rm -rf /src/*

# Any user may run it (docker run --user): nothing outside of the volume is written.
ENV XDG_CACHE_HOME=/models/.cache HF_HOME=/models/.cache/huggingface PYTHONUNBUFFERED=1
VOLUME /models
WORKDIR /models
ENTRYPOINT ["streamconv"]
CMD ["--help"]
