#!/bin/sh
# Writes the passwords that compose.yaml needs into .env (or the file named), once. Keeps an existing file; never
# prints a password.
set -eu
target=${1:-$(dirname "$0")/../../.env}
if [ -e "$target" ]; then
  echo "$target exists and is kept" >&2
  exit 0
fi
umask 077
# A letter first: nats-server reads a value that begins with a digit as a number.
secret() { printf 'p%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"; }
{
  for user in GATEWAY PREFILL DECODE MONITOR STANDBY OPERATOR CLIENT; do
    echo "BATON_NATS_PASSWORD_$user=$(secret)"
  done
  echo "BATON_REDIS_PASSWORD=$(secret)"
} >"$target.new"
mv "$target.new" "$target"
echo "wrote $target" >&2
