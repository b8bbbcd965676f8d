# The image of every Airflow service in docker-compose.yaml.
#
# The base is the slim image: Airflow and no provider but the ones it cannot do without. The full image holds some
# ninety more, on versions that exclude ours (its FAB provider wants python-dateutil < 3, requirements.txt has 4).
# The packages installed here are those that the tests ran on, to the hash.
FROM apache/airflow:slim-3.3.2-python3.11

USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends gnupg \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o airflow -g 0 -m 0770 /opt/airflow/auth /opt/airflow/var

USER airflow
COPY requirements.txt /opt/airflow/requirements/base.txt
COPY deploy/requirements.txt /opt/airflow/requirements/deploy.txt
# --no-deps: the two files are complete, and pip knows no hash for a name with an extra (`celery[redis]`).
RUN pip install --no-cache-dir --no-deps --require-hashes \
        -r /opt/airflow/requirements/base.txt -r /opt/airflow/requirements/deploy.txt \
    && pip check

COPY --chown=airflow:0 deploy/airflow /opt/airflow/deploy
COPY --chown=airflow:0 include /opt/airflow/include
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 dags /opt/airflow/dags

# `include/` is a source root: the package has one name everywhere.
ENV PYTHONPATH=/opt/airflow/include
