#!/usr/bin/env bash
# The one place that knows how docker, podman and apptainer are called.
#   container_engine.sh find ENGINE                  print the engine that answers; ENGINE is docker, podman, apptainer, auto, or
#                                                    command: IMAGE is then a command line, run without a container
#   container_engine.sh image ENGINE IMAGE           print the image's identity; status 1 if it is not on this machine
#   container_engine.sh run ENGINE [--gpu] [--shm SIZE] [--as-me] [--read-only] [--name NAME] [--env NAME=VALUE]
#                       [--bind HOST:INSIDE[:ro]]... IMAGE [ARGUMENT...]
#                                                    run an image's own entry point, without network; a command is given the
#                                                    HOST of each bind as its arguments
#   container_engine.sh stop ENGINE NAME             end a container that was started under a name
set -euo pipefail

find_engine() {
    local engine
    case $1 in
        auto) set -- docker podman apptainer ;;
        docker | podman | apptainer) ;;
        command)
            echo command
            return 0
            ;;
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

# A command of this machine, without network where the kernel lets an ordinary user shut it off.
run_command() {
    local line=$1 alone=(unshare --map-current-user --net)
    shift
    "${alone[@]}" true 2>/dev/null || alone=()
    exec "${alone[@]}" bash -c "$line \"\$@\"" command "$@"
}

run_image() {
    local engine=$1 options=() places=()
    shift
    case $engine in
        docker | podman) options=(run --rm --network none) ;;
        apptainer) options=(run --containall --net --network none) ;;
        command) ;;
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
                places+=("${2%%:*}")
                shift
                ;;
            --env)
                if [ "$engine" = command ]; then export "${2?}"; else options+=(--env "$2"); fi
                shift
                ;;
            # Apptainer's images are read-only, and it knows no names.
            --read-only) [ "$engine" = apptainer ] || options+=(--read-only --tmpfs /tmp) ;;
            --name)
                [ "$engine" = apptainer ] || options+=(--name "$2")
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
    [ "$engine" != command ] || run_command "$image" "${places[@]}"
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
    stop) case $2 in docker | podman) "$2" kill "$3" >/dev/null 2>&1 ;; esac ;;
    *)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
