# bash completion for testenv.  It needs nothing of the package bash-completion,
# so that sourcing this file is enough; names of snapshots and databases are not
# completed, as that would connect to servers while somebody types.

_testenv()
{
	local commands='snapshot restore status list drop clone wait run'
	local valued=' -d --dbname -h --host -p --port -U --username -j --jobs --maintenance-db --label --count --timeout --strategy --prefix '
	local common='--dbname --all --maintenance-db --host --port --username --no-password --password --jobs --json --quiet --verbose --version --help'
	local word=${COMP_WORDS[COMP_CWORD]}
	local before=${COMP_WORDS[COMP_CWORD - 1]}
	local command='' options=$common i

	# bash takes --option=value apart
	if [ "$word" = = ]; then word=; fi
	if [ "$before" = = ]; then before=${COMP_WORDS[COMP_CWORD - 2]}; fi

	for ((i = 1; i < COMP_CWORD; i++)); do
		case $valued in
		*" ${COMP_WORDS[i - 1]} "*) continue ;;
		esac
		case " $commands " in
		*" ${COMP_WORDS[i]} "*)
			command=${COMP_WORDS[i]}
			break
			;;
		esac
	done

	case $before in
	--strategy)
		mapfile -t COMPREPLY < <(compgen -W 'auto file_copy wal_log' -- "$word")
		return
		;;
	esac
	case $valued in
	*" $before "*) return ;;
	esac

	case $command in
	snapshot) options+=' --label' ;;
	restore | run) options+=' --terminate' ;;
	wait) options+=' --timeout' ;;
	clone) options="${options/--all /} --count --prefix --drop-stale --strategy --no-restore --terminate" ;;
	esac

	case $word in
	-*) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word") ;;
	*)
		if [ -z "$command" ]; then
			mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
		elif [ "$command" = run ]; then
			mapfile -t COMPREPLY < <(compgen -c -- "$word")
		fi
		;;
	esac
}

complete -F _testenv testenv
