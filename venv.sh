# Sourced by demo.sh and test.sh: makes .venv and fills it, once per change of
# what it should hold, and activates it.
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2
  exit 2
fi
wanted=$(cat requirements.txt setup.py | sha256sum)
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
  echo "setting up .venv (some minutes, once)" >&2
  [ -x .venv/bin/pip ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --editable '.[test]'
  echo "$wanted" > .venv/installed
fi
. .venv/bin/activate
