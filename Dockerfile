# One image for all three programs; docker_entrypoint.py decides which. Written, not run yet: see docs/operations.md.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.lock ./
# Every wheel is checked against the lock's hashes; from here on nothing is fetched.
RUN pip wheel --disable-pip-version-check --no-cache-dir --require-hashes --requirement requirements.lock --wheel-dir /wheels
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY runtime runtime
COPY dialer dialer
COPY agent agent
COPY projections projections
COPY rehearsal rehearsal
# What the application asks for, out of those wheels: the lock's development tools stay behind.
RUN pip install --disable-pip-version-check --no-index --find-links /wheels "setuptools>=77" \
    && python -m venv /opt/dialer \
    && pip wheel --disable-pip-version-check --no-index --find-links /wheels --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/dialer/bin/pip install --disable-pip-version-check --no-cache-dir --no-index --find-links /wheels outbound-dialer

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/dialer dialer \
    && install --directory --owner dialer --group dialer /var/lib/dialer
COPY --from=build /opt/dialer /opt/dialer
COPY docker_entrypoint.py /opt/dialer/docker_entrypoint.py
ENV PATH=/opt/dialer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DIALER_STORE_PATH=/var/lib/dialer/read.sqlite
WORKDIR /home/dialer
USER 10001:10001
EXPOSE 21121 21122 8081
ENTRYPOINT ["python", "/opt/dialer/docker_entrypoint.py"]
