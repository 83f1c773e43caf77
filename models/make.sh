#!/usr/bin/env bash
# Trains the nano model again, from text to Q4_0, as models/nano/README.md says. Needs build/carat
# and the text of `make nano-data`; writes to build/nano and leaves models/nano alone.
# A run that was stopped goes on where it was: the states lie beside the results.
set -euo pipefail
cd "$(dirname "$0")/../.."
carat=build/carat
text=build/nano/text
out=build/nano
training=()
for name in emma mansfield northanger prejudice sense; do
  training+=(--text "$text/$name.txt")
done

resume() { [ -e "$1" ] && echo "--resume" || true; }

$carat train --new-tokenizer 3072 "${training[@]}" --out "$out/tokenizer"

# Pre-training: the teacher.
$carat train --config models/nano/config.json --tokenizer "$out/tokenizer/tokenizer.json" \
  "${training[@]}" --validation "$text/persuasion.txt" --tokens 7000000 --batch 8 --micro-batch 4 \
  --seq 512 --lr 3e-3 --seed 1 --eval-interval 100 --eval-tokens 32768 \
  --checkpoint "$out/teacher.state" $(resume "$out/teacher.state") --out "$out/teacher"

# Quantization-aware training against it.
$carat train --teacher "$out/teacher" "${training[@]}" --validation "$text/persuasion.txt" \
  --tokens 1000000 --batch 8 --micro-batch 4 --seq 512 --lr 3e-4 --seed 2 \
  --eval-interval 50 --eval-tokens 32768 \
  --checkpoint "$out/qat.state" $(resume "$out/qat.state") --out "$out/qat"

$carat convert "$out/qat" "$out/nano-q4_0.gguf" --to gguf-q4_0 --force
$carat convert "$out/teacher" "$out/teacher-round.gguf" --to gguf-q4_0 --round --force
$carat audit "$out/teacher" "$out/nano-q4_0.gguf" "$out/qat" "$out/teacher-round.gguf" \
  --text "$text/persuasion.txt"
