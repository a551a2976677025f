#!/usr/bin/env bash
# The one place that knows how docker, podman and apptainer are called.
#   container_engine.sh find ENGINE                  print the engine that answers; ENGINE is docker, podman, apptainer or auto
#   container_engine.sh image ENGINE IMAGE           print the image's identity; status 1 if it is not on this machine
#   container_engine.sh run ENGINE [--gpu] [--shm SIZE] [--as-me] [--bind HOST:INSIDE[:ro]]... IMAGE [ARGUMENT...]
#                                                    run an image's own entry point, without network
set -euo pipefail

find_engine() {
    local engine
    case $1 in
        auto) set -- docker podman apptainer ;;
        docker | podman | apptainer) ;;
        *)
            echo "container engine '$1' is unknown; use docker, podman, apptainer or auto" >&2
            return 1
            ;;
    esac
    for engine in "$@"; do
        command -v "$engine" >/dev/null || continue
        [ "$engine" = apptainer ] || "$engine" info >/dev/null 2>&1 || continue
        echo "$engine"
        return 0
    done
    echo "no container engine answers (tried $*); install docker, podman or apptainer and see that it runs" >&2
    return 1
}

show_image() {
    case $1 in
        docker) docker image inspect --format '{{.Id}} {{join .RepoDigests " "}}' "$2" ;;
        podman) podman image inspect --format '{{.Id}} {{join .RepoDigests " "}}' "$2" ;;
        apptainer) [ -f "$2" ] && sha256sum "$2" ;;
    esac
}

run_image() {
    local engine=$1 options=()
    shift
    case $engine in
        docker | podman) options=(run --rm --network none) ;;
        apptainer) options=(run --containall --net --network none) ;;
        *)
            echo "container engine '$engine' is unknown" >&2
            return 2
            ;;
    esac
    while [ $# -gt 0 ]; do
        case $1 in
            --gpu) if [ "$engine" = apptainer ]; then options+=(--nv); else options+=(--gpus all); fi ;;
            --bind)
                if [ "$engine" = apptainer ]; then options+=(--bind "$2"); else options+=(-v "$2"); fi
                shift
                ;;
            # Apptainer has the memory file system and the user of the machine.
            --shm)
                [ "$engine" = apptainer ] || options+=(--shm-size "$2")
                shift
                ;;
            # Podman without root maps its root to the user already.
            --as-me) [ "$engine" != docker ] || options+=(--user "$(id -u):$(id -g)") ;;
            *) break ;;
        esac
        shift
    done
    local image=$1
    shift
    if [ "$engine" = apptainer ]; then
        case $image in *.sif | */*.sif | *://*) ;; *) image="docker://$image" ;; esac
    fi
    exec "$engine" "${options[@]}" "$image" "$@"
}

case ${1:-} in
    find) find_engine "$2" ;;
    image) show_image "$2" "$3" ;;
    run)
        shift
        run_image "$@"
        ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
