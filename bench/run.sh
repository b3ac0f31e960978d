#!/usr/bin/env bash
# The whole comparison: bench/peers.sh without TLS, with TLS, and with 2,000
# connections, which is more than any proxy can serve at once; behavior under load
# (bench/load); and the chart. It takes a quarter of an hour on an idle machine.
#
#   bench/run.sh [seconds]     ROUNDS=5
set -eu
cd "$(dirname "$0")/.."
export ROUNDS=${ROUNDS:-5}
mkdir -p bench/results
commit=$(git describe --always --dirty)
RESULTS=$PWD/bench/results/plain.txt bench/peers.sh "${1:-6}"
TLS=1 RESULTS=$PWD/bench/results/tls.txt bench/peers.sh "${1:-6}"
CONNS=2000 RESULTS=$PWD/bench/results/crowd.txt bench/peers.sh "${1:-6}"
go run ./bench/load | tee bench/results/load.txt
caption="$(date -u +%F), $commit, $(nproc) cores of $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), $(go env GOVERSION)"
go run ./bench/chart "$caption" bench/results/{plain,tls,crowd}.txt > bench/results/chart.svg
echo "bench/results/chart.svg: $caption"
