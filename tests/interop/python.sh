#!/bin/sh
# Runs a Python script with the interpreter $REAP_PYTHON, or python3; 77 (skipped, for ctest) where there is none.
python=${REAP_PYTHON:-python3}
command -v "$python" >/dev/null || { echo "skipped: $python is not there"; exit 77; }
exec "$python" "$@"
