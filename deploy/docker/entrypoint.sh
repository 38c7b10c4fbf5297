#!/bin/sh
# Secrets come as files: VERIFRAME_LEDGER_URL_FILE=/run/secrets/ledger_url becomes VERIFRAME_LEDGER_URL for the command that follows.
set -eu

file="" given=""
for name in $(env | sed -n 's/^\(VERIFRAME_[A-Z0-9_]*\)_FILE=.*/\1/p'); do
    eval "file=\${${name}_FILE}"
    eval "given=\${${name}:-}"
    if [ -n "$given" ]; then
        echo "both $name and ${name}_FILE are set: keep one" >&2
        exit 64
    fi
    if [ ! -r "$file" ]; then
        echo "${name}_FILE names $file, which cannot be read: mount the secret, readable for user $(id -u)" >&2
        exit 66
    fi
    value=$(cat "$file")
    export "$name=$value"
    unset "${name}_FILE"
done

exec "$@"
