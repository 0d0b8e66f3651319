# mqd.bash - completion of mqd's command line in bash, loaded by bash-completion.
#
# The options are read from `mqd -h`: lines like "  -H dir" and "  -o sync=full|push|none".

_mqd() {
	local cur prev words cword
	_init_completion -n := || return
	local usage name value
	local -a found=()

	COMPREPLY=()
	usage=$("${words[0]/#~\//$HOME/}" -h 2>/dev/null)
	case $prev in
	-H)
		_filedir -d
		return
		;;
	-s | -P | -Y)
		_filedir
		return
		;;
	-u)
		mapfile -t COMPREPLY < <(compgen -u -- "$cur")
		return
		;;
	-o)
		while IFS='=' read -r name value; do
			case $value in
			*'|'*) mapfile -t -O ${#found[@]} found < <(printf "$name=%s\n" ${value//|/ }) ;;
			*) found+=("$name=") ;;
			esac
		done < <(sed -n 's/^  -o \([a-z_]*=[^ ]*\).*/\1/p' <<<"$usage")
		;;
	*)
		[[ $cur == -* ]] && mapfile -t found < <(sed -n 's/^  \(-[A-Za-z]\) .*/\1/p' <<<"$usage" | sort -u)
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "${found[*]}" -- "$cur")
	[[ ${COMPREPLY[*]} != *= ]] || compopt -o nospace
	if [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]]; then
		COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*=}"}"}")
	fi
} && complete -F _mqd mqd
