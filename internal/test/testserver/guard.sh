# Runs a server for a test process and ends it when that process is gone, however it went: a panic and SIGKILL close the pipe
# on standard input too. Being the server's parent it can start nothing that outlives both, and needs no thread to be kept
# alive as Linux's parent-death signal does.
#
# usage: guard FOLDER SIGNAL COMMAND...
#   standard input  held open by the test process; a line on it says that the server has ended and been noticed
#   descriptor 3    told the server's pid, and its exit code when it has ended
folder=$1
signal=$2
shift 2
rm -f "$folder/ended"
exec 4<&0 </dev/null

"$@" 3>&- 4<&- &
server=$!

(
	if read -r _ <&4; then
		exit 0
	fi
	# The pid is the server's only until it is waited for, so the mark is looked at before each signal.
	tries=0
	while [ ! -e "$folder/ended" ] && [ "$tries" -lt 100 ]; do
		if [ "$tries" -eq 0 ]; then
			kill -s CONT "$server"
			kill -s "$signal" "$server"
		fi
		sleep 0.1
		tries=$((tries + 1))
	done
	if [ ! -e "$folder/ended" ]; then
		kill -s KILL "$server"
		sleep 1
	fi
	rm -rf "$folder"
) >/dev/null 2>&1 3>&- &

echo "$server" >&3
wait "$server"
code=$?
: >"$folder/ended"
echo "$code" >&3
exec 3>&-
wait
