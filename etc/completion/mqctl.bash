# mqctl.bash - completion of mqctl's command line in bash, loaded by bash-completion.
#
# Which commands there are and what each takes is read from `mqctl -h`, so a new one needs nothing
# here. In its usage a word that begins with "queue" stands for a queue, "number" for a message of the
# first queue named; a|b and --x are meant literally. Queues and messages are looked up in the spool:
# nothing is offered to who cannot read it.

_mqctl() {
	local cur prev words cword
	_init_completion -n := || return
	local spool=/var/spool/mqd usage i=1 want kind
	local -a args

	while [[ $i -lt $cword && ${words[i]} == -* ]]; do
		[[ ${words[i]} == -H ]] && spool=${words[i + 1]/#~\//$HOME/} && ((i++))
		((i++))
	done
	COMPREPLY=()
	if [[ $prev == -H && $i -ge $cword ]]; then
		_filedir -d
		return
	fi
	usage=$("${words[0]/#~\//$HOME/}" -h 2>/dev/null)
	if [[ $i -eq $cword ]]; then
		mapfile -t args < <(sed -n 's/^  \([a-z-]*\) .*/\1/p' <<<"$usage")
		[[ $cur != -* ]] || args=(-H -h)
		mapfile -t COMPREPLY < <(compgen -W "${args[*]}" -- "$cur")
		return
	fi

	# What its usage says up to the text, which stands behind two spaces or on the next line. What can be
	# no command may be one of sed's.
	[[ ${words[i]} != *[^a-z-]* ]] || return
	read -ra args < <(sed -n "s/^  ${words[i]} \{0,1\}\(.*\)/\1/p" <<<"$usage" | sed 's/  .*//')
	want=${args[cword - i - 1]:-}
	[[ -n $want || ${#args[@]} -eq 0 || ${args[-1]} != *...* ]] || want=${args[-1]}
	want=${want#[} want=${want%]} want=${want%...} want=${want%]}
	local -a found=() literal=()
	IFS='|' read -ra literal <<<"$want"
	for kind in "${literal[@]}"; do
		case $kind in
		queue*) mapfile -t -O ${#found[@]} found < <(cd -- "$spool" &>/dev/null && compgen -d) ;;
		number) mapfile -t -O ${#found[@]} found < <(cd -- "$spool/${words[i + 1]}" &>/dev/null && compgen -G '[0-9]*') ;;
		--*) found+=("$kind") ;;
		*) [[ $want != *'|'* ]] || found+=("$kind") ;;
		esac
	done
	for kind in "${found[@]}"; do
		[[ $kind == .* || $kind != "$cur"* ]] || COMPREPLY+=("$kind")
	done
	# bash takes what stands behind the last : or = for the word.
	if [[ $cur == *[:=]* && $COMP_WORDBREAKS == *[:=]* ]]; then
		COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*[:=]}"}"}")
	fi
} && complete -F _mqctl mqctl
