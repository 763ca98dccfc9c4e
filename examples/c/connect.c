/* Asks a server inside a sandbox, which has no network, over a socket. */
#include <blink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(blink_status status, blink_error *error)
{
    if (status != BLINK_STATUS_OK) {
        fprintf(stderr, "%s\n", blink_error_message(error));
        exit(1);
    }
}

int main(void)
{
    blink_options options;
    blink_options_init(&options, sizeof options);
    options.isolation = BLINK_ISOLATION_AUTO;

    blink_command command;
    blink_command_init(&command, sizeof command);
    command.language = "python";
    command.code = "import socketserver\n"
                   "class Shout(socketserver.StreamRequestHandler):\n"
                   "    def handle(self):\n"
                   "        self.wfile.write(self.rfile.read().upper())\n"
                   "with socketserver.TCPServer(('127.0.0.1', 8000), Shout) as server:\n"
                   "    print('ready', flush=True)\n"
                   "    server.serve_forever()\n";

    blink *all;
    blink_sandbox *sandbox;
    blink_process *server;
    blink_error *error;
    check(blink_open(&options, &all, &error), error);
    check(blink_sandbox_create(all, NULL, NULL, &sandbox, &error), error);
    check(blink_sandbox_spawn(sandbox, &command, NULL, &server, &error), error);
    uint8_t ready[16];
    size_t count;
    check(blink_process_read(server, BLINK_STREAM_STDOUT, ready, sizeof ready, &count, NULL, &error), error);

    int fd;
    check(blink_sandbox_connect_tcp(sandbox, "localhost", 8000, NULL, &fd, &error), error);
    const char question[] = "hello from outside\n";
    if (send(fd, question, strlen(question), MSG_NOSIGNAL) < 0 || shutdown(fd, SHUT_WR) < 0)
        return 1;
    char answer[256];
    for (ssize_t length; (length = read(fd, answer, sizeof answer)) > 0;)
        fwrite(answer, 1, (size_t)length, stdout);
    close(fd);

    blink_process_free(server);
    blink_sandbox_free(sandbox);
    blink_close(all);
    return 0;
}
