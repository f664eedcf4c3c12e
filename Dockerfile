# One image for all processes; the command selects one: web, worker, beat, collector, migrate.
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 10001 kampania
WORKDIR /srv/kampania

COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY . .
RUN pip install --no-cache-dir --no-deps --editable . \
 && install -d -o kampania -g kampania /srv/var

USER kampania
ENV KAMPANIA_VAR=/srv/var PYTHONUNBUFFERED=1
VOLUME /srv/var
EXPOSE 8000
ENTRYPOINT ["kampania"]
CMD ["web", "--host", "0.0.0.0", "--port", "8000", "--expose"]
