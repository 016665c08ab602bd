#!/bin/sh
# dpkg writes its progress to this: at the first package that is unpacked, dpkg, apt-get and who called it are killed, as
# when the power goes. Once.
while read -r line; do
  case "$line" in
    *": unpacked"*)
      rm -f /etc/dpkg/dpkg.cfg.d/cutter
      dpkg=$PPID
      apt=$(awk '{print $4}' "/proc/$dpkg/stat")
      module=$(awk '{print $4}' "/proc/$apt/stat")
      echo "$line" > /var/lib/gpu-stand-in/cut
      kill -KILL "$module" "$apt" "$dpkg"
      exit 0
      ;;
  esac
done
