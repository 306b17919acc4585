#!/bin/sh
# Writes the secrets that deploy/kubernetes needs into secrets.env (or the file named), once. Keeps an existing file;
# never prints a secret.
set -eu
target=${1:-secrets.env}
if [ -e "$target" ]; then
  echo "$target exists and is kept" >&2
  exit 0
fi
umask 077
# A letter first: nats-server reads a value that begins with a digit as a number.
secret() { printf 'p%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"; }
{
  for user in GATEWAY PREFILL DECODE MONITOR STANDBY OPERATOR CLIENT ROUTE; do
    echo "BATON_NATS_PASSWORD_$user=$(secret)"
  done
  echo "BATON_REDIS_PASSWORD=$(secret)"
  echo "BATON_MONITOR_TOKEN=$(secret)"
} >"$target.new"
mv "$target.new" "$target"
echo "wrote $target" >&2
