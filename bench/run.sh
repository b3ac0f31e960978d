#!/usr/bin/env bash
# The whole comparison: bench/peers.sh without and with TLS, and the chart of both. One command, some ten minutes on a machine
# that does nothing else.
#
#   bench/run.sh [seconds]     ROUNDS=5
set -eu
cd "$(dirname "$0")/.."
export ROUNDS=${ROUNDS:-5}
mkdir -p bench/results
RESULTS=$PWD/bench/results/plain.txt bench/peers.sh "${1:-6}"
TLS=1 RESULTS=$PWD/bench/results/tls.txt bench/peers.sh "${1:-6}"
caption="$(date -u +%F), $(git describe --always --dirty), $(nproc) cores of $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), $(go env GOVERSION)"
go run ./bench/chart "$caption" bench/results/plain.txt bench/results/tls.txt > bench/results/chart.svg
echo "bench/results/chart.svg: $caption"
