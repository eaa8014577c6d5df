#!/usr/bin/env bash
# tools/new_mixer.sh NAME: makes src/krait/mixers/NAME/NAME.cc, a working mixer to start from.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-}
if ! [[ "$name" =~ ^[a-z][a-z0-9_]*$ ]]; then
  echo "usage: tools/new_mixer.sh NAME    (snake_case)" >&2
  exit 2
fi
file=src/krait/mixers/$name/$name.cc
if [ -e "$file" ]; then
  echo "$file exists already" >&2
  exit 1
fi
class=$(sed -E 's/(^|_)([a-z])/\U\2/g' <<<"$name")
mkdir -p "$(dirname "$file")"
sed -e "s/@name@/$name/g" -e "s/@Class@/$class/g" tools/new_mixer.cc.in >"$file"
cat <<TEXT
made $file: a gated causal convolution, to be replaced by your mixer.
Now add X($name) to KRAIT_MIXERS in src/krait/mixers/registry.h; the contract tests (build/tests/test_contract) then
run on it.
docs/adding-a-mixer.md tells the rest.
TEXT
