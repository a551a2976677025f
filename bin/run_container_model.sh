#!/usr/bin/env bash
# Run one outside model by the container contract of docs/add_a_model.md:
#   run_container_model.sh ENGINE IMAGE EXAM_DIR OUT.nii.gz FAILURE.json PATIENT SESSION MODEL cpu|gpu [INPUT,...]
# INPUT: what the model cannot do without, as its entry lists it; where the exam lacks one, the container is not started.
# ENGINE is docker, podman, apptainer or auto; ENGINE_OPTIONS are further options of container_engine.sh run. Exit status 0 with FAILURE.json written when the model fails.
set -euo pipefail
PATH="$(dirname "$0"):$PATH"
engine=$1 image=$2 exam=$3 out=$4 failure=$5 patient=$6 session=$7 model=$8 device=$9 inputs=${10:-}

# KIND of predictgbm.failures.KINDS, and the reason.
fail() {
    python3 - "$failure" "$patient" "$session" "$model" "$1" "$2" <<'PY' 2>/dev/null || printf '{"patient":"%s","session":"%s","model":"%s","stage":"predict","kind":"%s","analysis":"main","reason":"the container failed, see the log of its task"}\n' "$patient" "$session" "$model" "$1" > "$failure"
import json
import sys

path, *values = sys.argv[1:]
names = ("patient", "session", "model", "kind", "reason")
with open(path, "w", encoding="utf-8") as handle:
    json.dump(dict(zip(names, values), stage="predict", analysis="main"), handle)
PY
    exit 0
}

engine=$(container_engine.sh find "$engine" 2> engine.log) || fail refused "$(tail -n 1 engine.log), or leave this model out by --models"

mkdir -p mlcube_io0/Patient-00000 mlcube_io1
missing=()
while read -r name suffix; do
    found=
    for path in "$exam"/*_"$suffix".nii.gz; do
        # The name of T1 with contrast agent ends like that of T1.
        [[ ! -e $path || $path == *_ce-*_"$suffix".nii.gz ]] || found=$path
    done
    if [ -n "$found" ]; then
        cp -L "$found" "mlcube_io0/Patient-00000/00000-$name.nii.gz"
    elif [[ ",${inputs//tumor_seg/tumorseg}," == *",$name,"* ]]; then
        missing+=("$name")
    fi
done <<'NAMES'
gm label-GM_probseg
wm label-WM_probseg
csf label-CSF_probseg
tumorseg desc-tumor_dseg
t1 T1w
t1c ce-GD_T1w
t2 T2w
flair FLAIR
brain_mask desc-brain_mask
adc ADC
pet pet
tensor param-tensor_dwimap
NAMES

[ ${#missing[@]} = 0 ] || fail missing_input "the exam has no ${missing[*]}, which this model lists among its inputs"

read -ra options <<< "${ENGINE_OPTIONS:-}"
[ "$device" != gpu ] || options+=(--gpu)
status=0
container_engine.sh run "$engine" "${options[@]}" --bind "$PWD/mlcube_io0:/mlcube_io0:ro" \
    --bind "$PWD/mlcube_io1:/mlcube_io1" "$image" > container.log 2>&1 || status=$?
cat container.log
kind=crashed
[ "$status" != 137 ] || kind=lost
[ "$status" = 0 ] || fail $kind "the container ended with exit status $status: $(tail -n 3 container.log | tr '\n' ' ')"
[ -s mlcube_io1/00000.nii.gz ] || fail crashed "the container wrote no /mlcube_io1/00000.nii.gz; its contract is in docs/add_a_model.md"
mkdir -p "$(dirname "$out")"
mv mlcube_io1/00000.nii.gz "$out"
