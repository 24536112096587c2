#!/usr/bin/env bash
# Build uspcap instrumented, into a virtual environment of its own: fuzz/build.sh sanitizers|lines [VENV]
# VENV is .instrumented/sanitizers or .instrumented/lines unless named. A second run compiles only what changed.
set -euo pipefail
cd "$(dirname "$0")/.."
instrument=${1:?sanitizers or lines}
venv=${2:-.instrumented/$instrument}
python=${PYTHON:-python3}

if command -v ccache >/dev/null; then export CC="ccache ${CC:-gcc}"; fi
if [ ! -x "$venv/bin/python" ]; then "$python" -m venv "$venv"; fi
if ! "$venv/bin/python" -c 'import mesonpy, Cython, pytest, hypothesis, jsonschema, cypcap' 2>/dev/null; then
  "$venv/bin/pip" install --quiet "pip>=23.1" meson-python meson ninja Cython pytest-xdist
  "$venv/bin/python" - >"$venv/requirements.txt" <<'PYTHON'
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
wanted = project["dependencies"] + [one for extra in ("filters", "compression", "test") for one in extras[extra]]
print("\n".join(one for one in wanted if not one.startswith("uspcap[")))
PYTHON
  "$venv/bin/pip" install --quiet -r "$venv/requirements.txt"
fi
# Outside the sanitizers' runtime a sanitized module cannot be imported, so nothing here may import the result.
PATH="$(cd "$venv/bin" && pwd):$PATH" "$venv/bin/pip" install --quiet --no-build-isolation --no-deps --force-reinstall \
  --config-settings=build-dir="build/$instrument" --config-settings=setup-args="-Dinstrument=$instrument" --config-settings=setup-args=-Dbuildtype=plain .
# A build that counts nothing would be fuzzed in vain.
if [ "$instrument" = sanitizers ] && ! grep -q uspcap_discoveries "$venv"/lib/python*/site-packages/uspcap/_core/columns.*.so; then
  echo "the modules are not instrumented: pip has dropped a setting; it must be 23.1 or later" >&2
  exit 1
fi
