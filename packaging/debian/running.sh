# Which programs of coverlay run here. In prerm, postinst and postrm in place of the line "#RUNNING#" (packaging/build.ts).

# True if process $1 runs, that began at $2 (proc(5), fields 3 and 22; "": at any time). One that was killed is a zombie while a thread of it is in a call
# to the disk.
runs() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  wanted=$2 threads=$(ls "/proc/$1/task" 2>/dev/null | wc -l)
  # Its name may have spaces and parentheses.
  set -- ${stat##*) }
  case $1 in
  Z | X) [ "$threads" -gt 1 ] || return 1 ;;
  esac
  [ -z "$wanted" ] || [ "${20}" = "$wanted" ]
}

# "PID DIRECTORY" of each overlay that runs, also after umount -l (overlay/volume/mount-record.ts). What a dead one left behind does not count.
recorded_overlays() {
  for file in /run/coverlay-mounts/*.json; do
    record=$(cat "$file" 2>/dev/null) || continue
    pid=$(printf %s "$record" | sed -n 's/^{"pid":\([0-9]*\),.*/\1/p')
    began=$(printf %s "$record" | sed -n 's/.*"startTime":"\([0-9]*\)".*/\1/p')
    directory=$(printf %s "$record" | sed -n 's/.*"mountPoint":"\(.*\)","runDir":.*/\1/p')
    [ -n "$pid" ] && [ -n "$began" ] && runs "$pid" "$began" || continue
    echo "$pid $directory"
  done
}

# "PID COMMAND" of each process that runs one of our programs, wherever that is installed; $1, an extended regular expression, is the end of its path, and
# what follows. One in a container, which has an /etc of its own, is none.
processes() {
  for file in $(grep -lE 'dlmd|overlay' /proc/[0-9]*/cmdline 2>/dev/null); do
    words=$(tr '\0' ' ' 2>/dev/null <"$file") || continue
    printf %s "$words" | grep -Eq "^([^ ]*/)?node( -[^ ]*)* [^ ]*/($1) " || continue
    pid=${file#/proc/}
    pid=${pid%/cmdline}
    # Anybody may run a program with these words; dlmd and overlays are root's.
    grep -Eqs '^Uid:[[:space:]]0[[:space:]]' "/proc/$pid/status" || continue
    [ "/proc/$pid/root/etc" -ef /etc ] || continue
    echo "$pid $words"
  done
}

# "main.js" is what an overlay is started with, "coverlay" a command of npm.
serving() { processes '(overlay/main\.js|coverlay) serve'; }
mounting() { processes '(overlay/main\.js|coverlay) mount'; }

# The dlmd that uses /run/coverlay, and so /etc/coverlay, wherever it is installed: "process N", "" if none runs. The file of its number may be older than
# it, and the number another program's by now; a socket is in the kernel's list only while it is open.
running_dlmd() {
  pid=$(cat /run/coverlay/dlmd.pid 2>/dev/null) || pid=
  if [ -n "$pid" ] && runs "$pid" "" && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -Eq '(^|/)dlmd(/main\.js)?$'; then
    echo "process $pid"
  elif grep -q ' /run/coverlay/dlmd\.sock$' /proc/net/unix 2>/dev/null; then
    echo "a process that listens on /run/coverlay/dlmd.sock"
  fi
}

# That one, or any other: it may use /etc/coverlay with a run directory of its own.
any_dlmd() {
  dlmd=$(running_dlmd)
  [ -n "$dlmd" ] || dlmd=$(processes 'dlmd(/main\.js)?' | sed -n '1s/^\([0-9]*\) .*/process \1/p')
  printf %s "$dlmd"
}
