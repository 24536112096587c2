#!/usr/bin/env bash
# Run a command with the sanitizers' runtimes: fuzz/sanitized.sh .instrumented/sanitizers/bin/pytest -m fast
# A report ends its process by SIGABRT. AddressSanitizer's are also kept as files, and fail the run even where what
# started the process did not look; UndefinedBehaviorSanitizer's go to standard error (pytest: --capture=sys).
set -euo pipefail
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT

# Neither CPython nor numpy is instrumented: their leaks are none of ours. Without pymalloc every object has a fence, and
# Python takes 2 times as long: PYTHONMALLOC=pymalloc leaves the fences to arrays and to objects beyond 512 bytes.
common="abort_on_error=1:log_path=$reports/report"
export ASAN_OPTIONS="detect_leaks=0:quarantine_size_mb=64:malloc_context_size=8:allocator_may_return_null=1:$common${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1:$common${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
export PYTHONMALLOC=${PYTHONMALLOC:-malloc}

status=0
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" "$@" || status=$?
if compgen -G "$reports/report*" >/dev/null; then
  echo "sanitizer reports:" >&2
  cat "$reports"/report* >&2
  exit 99
fi
exit "$status"
