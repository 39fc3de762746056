# The images of workloads on Kubernetes: "steps", which fetches and publishes, and "trainer", which has the reference
# programs. Both are this package with some of its extras; build.sh beside this says which, and what they are called.
#   EXTRAS  of this package, divided by spaces
#   TORCH   "cpu" to leave out what PyTorch needs for GPUs only
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
# A base that has Python is taken as it is.
RUN python3 -c 'import ensurepip' 2>/dev/null || { \
      apt-get update -qq \
      && apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-venv >/dev/null \
      && rm -rf /var/lib/apt/lists/*; }
RUN python3 -m venv --without-pip /opt/venv

# What is installed: resolved here, so that it is installed anew only when the answer is another one.
FROM python AS tools
ARG EXTRAS
ARG PIP_OPTIONS=
ARG UV_OPTIONS=--no-cache
WORKDIR /src
COPY constraints.txt pyproject.toml ./
RUN --mount=type=secret,id=ca-bundle \
    if [ -e /run/secrets/ca-bundle ]; then export PIP_CERT=/run/secrets/ca-bundle SSL_CERT_FILE=/run/secrets/ca-bundle; fi \
    && python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --constraint constraints.txt uv \
    && /opt/tools/bin/uv pip compile --quiet --python /opt/venv/bin/python ${UV_OPTIONS} ${PIP_OPTIONS} \
         --constraint constraints.txt $(printf -- '--extra %s ' ${EXTRAS}) --no-annotate --no-header \
         --output-file /requirements.txt pyproject.toml

FROM tools AS package
COPY README.md LICENSE ./
COPY airflow_provider_kitops airflow_provider_kitops
RUN --mount=type=secret,id=ca-bundle \
    if [ -e /run/secrets/ca-bundle ]; then export SSL_CERT_FILE=/run/secrets/ca-bundle; fi \
    && echo hatchling==1.33.0 >>constraints.txt \
    && /opt/tools/bin/uv build --quiet ${UV_OPTIONS} --wheel --build-constraints constraints.txt --out-dir /dist \
    && /opt/tools/bin/uv pip install --quiet --python /opt/venv/bin/python --no-cache --no-deps --compile-bytecode /dist/*.whl

FROM python
ARG PIP_OPTIONS=
ARG TORCH=
ARG UV_OPTIONS=--no-cache
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=tools /requirements.txt /opt/requirements.txt
RUN --mount=type=secret,id=ca-bundle \
    --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=bind,source=images/without_gpu.py,target=/run/without_gpu.py \
    if [ -e /run/secrets/ca-bundle ]; then export SSL_CERT_FILE=/run/secrets/ca-bundle; fi \
    && UV_LINK_MODE=copy /opt/tools/bin/uv pip install --quiet --python /opt/venv/bin/python ${UV_OPTIONS} ${PIP_OPTIONS} \
         --no-deps --compile-bytecode --requirements /opt/requirements.txt \
    && if [ "${TORCH}" = cpu ]; then /opt/tools/bin/uv pip uninstall --quiet --python /opt/venv/bin/python triton \
         && /opt/venv/bin/python -B /run/without_gpu.py; fi
# Last, and small: all that a change of this package changes.
COPY --from=package /opt/venv /opt/venv
LABEL org.opencontainers.image.licenses="Apache-2.0"
# Nobody in particular: nothing here needs a name, a home or a root file system that can be written.
USER 65532:65532
WORKDIR /tmp
