#!/usr/bin/env bash
# Run by the image of PostgreSQL when the volume is new: a database for the ledger. The ledger's role cannot open
# the database of Airflow.
set -euo pipefail
: "${LEDGER_PASSWORD:?}"

psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv password LEDGER_PASSWORD
CREATE ROLE clip_courier LOGIN PASSWORD :'password';
CREATE DATABASE clip_courier OWNER clip_courier;
REVOKE CONNECT ON DATABASE clip_courier FROM PUBLIC;
REVOKE CONNECT ON DATABASE :"DBNAME" FROM PUBLIC;
SQL
