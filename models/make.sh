#!/usr/bin/env bash
# Trains a model of models/ again, from text to Q4_0, as its README.md says: nano, nano-moe or
# nano-kv. Needs build/carat and the text of `make nano-data`; writes to build/NAME and leaves
# models/ alone. A run that was stopped goes on where it was: the states lie beside the results.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-nano}
case $name in  # tokens of the teacher and of quantization-aware training
  nano) teacher_tokens=7000000 qat_tokens=1000000 ;;
  nano-moe) teacher_tokens=2500000 qat_tokens=700000 ;;
  nano-kv) teacher_tokens=3000000 qat_tokens=700000 ;;
  *) echo "usage: models/make.sh [nano|nano-moe|nano-kv]" >&2; exit 2 ;;
esac
carat=${CARAT:-build/carat}
text=build/nano/text
tokenizer=build/nano/tokenizer
out=build/$name
mkdir -p "$out"
common=(--validation "$text/persuasion.txt" --batch 8 --micro-batch 4 --seq 512 --eval-tokens 32768
  --checkpoint-interval 50)
training=()
for novel in emma mansfield northanger prejudice sense; do
  training+=(--text "$text/$novel.txt")
done

resume() { [ -e "$1" ] && echo "--resume" || true; }

# One tokenizer for all, so that their losses can be compared.
[ -e "$tokenizer/tokenizer.json" ] ||
  $carat train --new-tokenizer 3072 "${training[@]}" --out "$tokenizer"

# Pre-training: the teacher.
$carat train --config "models/$name/config.json" --tokenizer "$tokenizer/tokenizer.json" \
  "${training[@]}" "${common[@]}" --tokens $teacher_tokens --lr 3e-3 --seed 1 \
  --eval-interval 100 --checkpoint "$out/teacher.state" $(resume "$out/teacher.state") \
  --out "$out/teacher"

# Quantization-aware training against it.
$carat train --teacher "$out/teacher" "${training[@]}" "${common[@]}" --tokens $qat_tokens \
  --lr 3e-4 --seed 2 --eval-interval 50 \
  --checkpoint "$out/qat.state" $(resume "$out/qat.state") --out "$out/qat"

$carat convert "$out/qat" "$out/$name-q4_0.gguf" --to gguf-q4_0 --force
$carat convert "$out/teacher" "$out/teacher-round.gguf" --to gguf-q4_0 --round --force
$carat audit "$out/teacher" "$out/$name-q4_0.gguf" "$out/qat" "$out/teacher-round.gguf" \
  --text "$text/persuasion.txt"
