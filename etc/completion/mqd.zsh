#compdef mqd
# mqd.zsh - completion of mqd's command line in zsh: goes to a directory of $fpath as _mqd.
#
# The options are read from `mqd -h`: lines like "  -H dir" and "  -o sync=full|push|none".

local line
local -a usage found

usage=("${(@f)$(_call_program options ${words[1]} -h 2>/dev/null)}")
case $words[CURRENT-1] in
-H) _files -/ ;;
-s | -P | -Y) _files ;;
-u) _users ;;
-o)
	for line in ${${(M)usage:#  -o *=*}#  -o }; do
		line=${line%% *}
		if [[ $line == *'|'* ]]; then
			found+=(${line%%=*}=${^${(s:|:)${line#*=}}})
		else
			found+=(${line%%=*}=)
		fi
	done
	compadd -S '' -a found
	;;
*)
	found=(${${(M)usage:#  -[A-Za-z] *}#  })
	found=(${(u)found%% *})
	compadd -a found
	;;
esac
