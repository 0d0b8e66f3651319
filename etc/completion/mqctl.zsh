#compdef mqctl
# mqctl.zsh - completion of mqctl's command line in zsh: goes to a directory of $fpath as _mqctl.
#
# Which commands there are and what each takes is read from `mqctl -h`, so a new one needs nothing
# here. In its usage a word that begins with "queue" stands for a queue, "number" for a message of the
# first queue named; a|b and --x are meant literally. Queues and messages are looked up in the spool:
# nothing is offered to who cannot read it.

local spool=/var/spool/mqd want kind i=2
local -a usage args found

while [[ $i -lt $CURRENT && $words[i] == -* ]]; do
	[[ $words[i] == -H ]] && { spool=${(Q)words[i+1]}; spool=${spool/#\~\//$HOME/}; (( i++ )) }
	(( i++ ))
done
if [[ $words[CURRENT-1] == -H && $i -ge $CURRENT ]]; then
	_files -/
	return
fi
usage=("${(@f)$(_call_program commands ${words[1]} -h 2>/dev/null)}")
if [[ $i -eq $CURRENT ]]; then
	if [[ $words[CURRENT] == -* ]]; then
		found=(-H -h)
	else
		found=(${${(M)usage:#  [a-z]*}[@]#  })
		found=(${found%% *})
	fi
	compadd -a found
	return
fi

# What its usage says up to the text, which stands behind two spaces or on the next line.
args=(${=${${${(M)usage:#  $words[i](| *)}#  $words[i]}# }%%  *})
want=$args[CURRENT-i]
[[ -z $want && $args[-1] == *...* ]] && want=$args[-1]
want=${${${${want#\[}%\]}%...}%\]}
for kind in ${(s:|:)want}; do
	case $kind in
	queue*) found+=($spool/*(N/:t)) ;;
	number) found+=($spool/${(Q)words[i+1]}/[0-9]*(N:t)) ;;
	--*) found+=($kind) ;;
	*) [[ $want == *'|'* ]] && found+=($kind) ;;
	esac
done
compadd -a found
