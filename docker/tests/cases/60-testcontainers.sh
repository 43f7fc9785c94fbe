# One of the Testcontainers modules, the real one: it starts our image where it
# starts the official one by default, with its own defaults and its own waiting.

case_testcontainers()
{
	python3 -m pip --version >/dev/null 2>&1 || apt_install_here python3 python3-pip
	python3 -m pip install --quiet --target "$work/testcontainers" testcontainers==4.15.0
	# its reaper is an image that would have to be pulled; here the label does
	PYTHONPATH=$work/testcontainers TESTCONTAINERS_RYUK_DISABLED=true python3 - "$image" "$label" <<-'PYTHON'
	import socket
	import sys

	from testcontainers.community.postgres import PostgresContainer

	image, label = sys.argv[1:]

	with PostgresContainer(image).with_kwargs(labels=dict([label.split("=")])) as database:

	    def psql(*commands):
	        words = ["psql", "-U", database.username, "-d", database.dbname, "-qAt", "-v", "ON_ERROR_STOP=1"]
	        for command in commands:
	            words += ["-c", command]
	        status, output = database.exec(words)
	        assert status == 0, output
	        return output.decode().split()

	    print(database.get_connection_url(driver=None))
	    socket.create_connection((database.get_container_host_ip(), int(database.get_exposed_port(5432))), 10).close()
	    psql("CREATE TABLE t AS SELECT 1 AS i", "SELECT testenv_snapshot()", "INSERT INTO t VALUES (2)", "SELECT testenv_restore()")
	    found = psql("SELECT current_database()", "SELECT count(*) FROM t")
	    assert found == ["test", "1"], found
	PYTHON
}
