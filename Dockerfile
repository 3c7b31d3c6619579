# The image of `pac`, for the Deployment that `pac kubernetes install` makes:
#
#     docker build --tag pac-concurrency:0.1.0 .
#
# With one store alone: --build-arg FEATURES=kubernetes,postgres
FROM rust:1.95.0-slim-bookworm AS build
# Not the components that rust-toolchain.toml asks for.
ENV RUSTUP_TOOLCHAIN=1.95.0
ARG FEATURES=etcd,kubernetes,postgres
# protoc, for the client of etcd.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libprotobuf-dev protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package pac-cli --no-default-features --features "$FEATURES"

# The C library and nothing else: no shell, no package manager. Its user `nonroot` is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/pac /usr/local/bin/pac
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pac"]
