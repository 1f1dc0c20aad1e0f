# CPU: docker build -t vlakit . && docker run --rm vlakit vlakit table name=table1
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libegl1 libgl1-mesa-dri git && rm -rf /var/lib/apt/lists/*
WORKDIR /vlakit
COPY . .
ARG EXTRAS=sim,serve,diffusion
RUN python -m pip install --no-cache-dir --constraint constraints.txt --editable ".[$EXTRAS]"
ENV MUJOCO_GL=egl VLAKIT_RUNS=/runs
VOLUME /runs
CMD ["vlakit", "--help"]
