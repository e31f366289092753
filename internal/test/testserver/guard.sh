# Runs a server for a test process and ends it when that process has ended. A panic and SIGKILL close the pipe on standard
# input too. Unlike Linux's parent-death signal, this does not depend on a thread of the test process.
#
# usage: guard FOLDER SIGNAL COMMAND...
#   standard input  held open by the test process, which writes a line when it has seen the end of the server
#   descriptor 3    receives the server's pid, and its exit code when it has ended
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
	# The pid may be reused after wait, so check the file "ended" before each signal.
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
