# The image of Windlass: windlass, windlass-runner, and git for the container prepare.
#
#   docker build -t windlass .                                  builds from source
#   make image                                                  from binaries of this machine, offline
#
# No BuildKit is needed. BASE must have git, ssh and CA certificates, or apt to install them.
ARG BASE=debian:12-slim
ARG RUST=rust:1.95-bookworm

# From binaries that `make binaries` left in target/image; with --target prebuilt nothing else is built.
FROM ${BASE} AS prebuilt
COPY target/image/windlass target/image/windlass-runner /usr/local/bin/
RUN command -v git && /usr/local/bin/windlass --version
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/windlass"]

FROM ${RUST} AS build
WORKDIR /src
COPY . .
RUN make binaries

FROM ${BASE}
RUN command -v git && command -v ssh || \
    { apt-get update && apt-get install -y --no-install-recommends git git-lfs openssh-client ca-certificates && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /src/target/image/windlass /src/target/image/windlass-runner /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/windlass"]
