# Airflow with this provider, for docker-compose.yml. Airflow itself stays at the base image's version.
ARG AIRFLOW_VERSION=3.3.2
FROM apache/airflow:${AIRFLOW_VERSION}-python3.12

COPY --chown=airflow:root . /opt/airflow-provider-kitops
# Editable installs and build leftovers have no place in an image; the judge's and the trainer's libraries do,
# because FineTuneLocalOperator and LLMJudgeOperator run on the worker here.
RUN pip install --no-cache-dir \
      --constraint /opt/airflow-provider-kitops/constraints.txt \
      '/opt/airflow-provider-kitops[judge,local-judge,sign,workload]'

# A volume that is mounted here takes over the owner.
RUN mkdir -p /opt/airflow/scratch
