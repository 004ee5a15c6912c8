FROM python:3.11-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STATIC_FOLDER=/srv/static
WORKDIR /srv/runbook
COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt
COPY . .
RUN DJANGO_SETTINGS_MODULE=runbook.check_settings python manage.py collectstatic --noinput \
    && useradd --system --uid 10001 runbook && install -d -o runbook /data /data/evidence && install -d -m 700 -o runbook /keys
USER runbook
