#!/usr/bin/env bash
# Run one outside model by the container contract of docs/add_a_model.md:
#   run_container_model.sh ENGINE IMAGE EXAM_DIR OUT.nii.gz FAILURE.json PATIENT SESSION MODEL cpu|gpu
# ENGINE is docker, podman, apptainer or auto; ENGINE_OPTIONS are further options of container_engine.sh run. Exit status 0 with FAILURE.json written when the model fails.
set -euo pipefail
PATH="$(dirname "$0"):$PATH"
engine=$1 image=$2 exam=$3 out=$4 failure=$5 patient=$6 session=$7 model=$8 device=$9

fail() {
    python3 - "$failure" "$patient" "$session" "$model" "$1" <<'PY' 2>/dev/null || printf '{"patient":"%s","session":"%s","model":"%s","stage":"predict","reason":"the container failed, see the log of its task"}\n' "$patient" "$session" "$model" > "$failure"
import json
import sys

path, patient, session, model, reason = sys.argv[1:]
with open(path, "w", encoding="utf-8") as handle:
    json.dump({"patient": patient, "session": session, "model": model, "stage": "predict", "reason": reason}, handle)
PY
    exit 0
}

engine=$(container_engine.sh find "$engine" 2> engine.log) || fail "$(tail -n 1 engine.log), or leave this model out by --models"

mkdir -p mlcube_io0/Patient-00000 mlcube_io1
while read -r name suffix; do
    for path in "$exam"/*_"$suffix".nii.gz; do
        [ -e "$path" ] && cp -L "$path" "mlcube_io0/Patient-00000/00000-$name.nii.gz"
    done
done <<'NAMES'
gm label-GM_probseg
wm label-WM_probseg
csf label-CSF_probseg
tumorseg desc-tumor_dseg
t1c ce-GD_T1w
flair FLAIR
brain_mask desc-brain_mask
adc ADC
pet pet
tensor param-tensor_dwimap
NAMES

read -ra options <<< "${ENGINE_OPTIONS:-}"
[ "$device" != gpu ] || options+=(--gpu)
status=0
container_engine.sh run "$engine" "${options[@]}" --bind "$PWD/mlcube_io0:/mlcube_io0:ro" \
    --bind "$PWD/mlcube_io1:/mlcube_io1" "$image" > container.log 2>&1 || status=$?
cat container.log
[ "$status" = 0 ] || fail "the container ended with exit status $status: $(tail -n 3 container.log | tr '\n' ' ')"
[ -s mlcube_io1/00000.nii.gz ] || fail "the container wrote no /mlcube_io1/00000.nii.gz; its contract is in docs/add_a_model.md"
mkdir -p "$(dirname "$out")"
mv mlcube_io1/00000.nii.gz "$out"
