#!/bin/bash
# Sets what CANN's libraries need, as a login shell in the image does, then becomes the command.
for file in /usr/local/Ascend/ascend-toolkit/set_env.sh /usr/local/Ascend/nnal/atb/set_env.sh; do
    # shellcheck disable=SC1090
    [ -r "$file" ] && source "$file"
done
export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:/usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64/driver:/usr/local/Ascend/driver/lib64/common:/usr/local/lib"
jemalloc="/usr/lib/$(uname -m)-linux-gnu/libjemalloc.so.2"
[ -r "$jemalloc" ] && export LD_PRELOAD="$jemalloc${LD_PRELOAD:+:$LD_PRELOAD}"
exec "$@"
