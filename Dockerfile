# A static uvs in an image of its own. How to run it: docs/container.md.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /uvs ./cmd/uvs

FROM scratch
COPY --from=build /uvs /uvs
ENTRYPOINT ["/uvs"]
CMD ["run", "-c", "/etc/uvs/uvs.yaml"]
