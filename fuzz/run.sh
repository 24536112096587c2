#!/usr/bin/env bash
# Fuzz under sanitizers: fuzz/run.sh 30m|90s|2h|5000 [TARGET...]
# A duration is for all targets together, shared out evenly and run on all cores, or JOBS=N of them; LEAST=N goes on until
# each has tried so many inputs, however long that takes. A bare number is inputs of each target.
# The build is made where it is not there (fuzz/build.sh sanitizers). SEED=N for other inputs; what was tried and found
# is in .instrumented/fuzz (fuzz/accounts.py puts it into fuzz/README.md), of each target what its last run came to; 1 is
# the exit code where anything was found.
set -euo pipefail
cd "$(dirname "$0")/.."
command="${LEAST:+LEAST=$LEAST }${SEED:+SEED=$SEED }fuzz/run.sh $*"
amount=${1:?how long, as 30m, or how many inputs of each target}
shift
venv=${VENV:-.instrumented/sanitizers}
if [ ! -x "$venv/bin/uspcap" ]; then fuzz/build.sh sanitizers "$venv"; fi
case $amount in
  *h) limit=(--seconds "$((${amount%h} * 3600))") ;;
  *m) limit=(--seconds "$((${amount%m} * 60))") ;;
  *s) limit=(--seconds "${amount%s}") ;;
  *) limit=(--count "$amount") ;;
esac
if [ -n "${LEAST:-}" ]; then limit+=(--least "$LEAST"); fi
export PYTHONPATH=fuzz:tests PYTHONSAFEPATH=1 PYTHONMALLOC=${PYTHONMALLOC:-pymalloc}
exec fuzz/sanitized.sh "$venv/bin/python" fuzz/engine.py "${limit[@]}" --seed "${SEED:-1}" \
  --jobs "${JOBS:-$(nproc)}" --command "$command" --directory .instrumented/fuzz "$@"
