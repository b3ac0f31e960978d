# An image with the program alone: no shell, no package manager, not root.
#
#   docker build -t wxproxy .
#   docker run -p 127.0.0.1:8080:8080 -p 8081:8081 -v /etc/wxproxy:/etc/wxproxy:ro -v wxproxy-data:/data wxproxy
#
# In a container, listeners have to be reachable from outside of it. Set
# listen = "0.0.0.0:…" in the configuration, with what that requires (see
# config.example.toml).
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /wxproxy ./cmd/wxproxy \
 && mkdir -p /rootfs/data /rootfs/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
 && cp /wxproxy /rootfs/wxproxy \
 && chown -R 65532:65532 /rootfs/data

FROM scratch
COPY --from=build /rootfs /
USER 65532:65532
# The default directory of the file store; see [store] url.
WORKDIR /data
VOLUME /data
# For callers, WeChat and operators.
EXPOSE 8080 8081 8082
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/wxproxy", "health"]
ENTRYPOINT ["/wxproxy"]
CMD ["serve", "--config", "/etc/wxproxy/config.toml"]
