/* Logins for registries: what one is told who asks for a login. */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char refusal[] = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"tests\"\r\n"
                              "Content-Length: 0\r\nConnection: close\r\n\r\n";
static const char nothing[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

struct registry {
    int listener;
    const char *wanted;
    atomic_int logins;
};

/* Refuses everybody but who has the login, and has no image for them either. */
static void *serve(void *data)
{
    struct registry *registry = data;
    int caller;
    while ((caller = accept(registry->listener, NULL, NULL)) >= 0) {
        char asked[8192];
        size_t length = 0;
        ssize_t count;
        do {
            count = read(caller, asked + length, sizeof asked - 1 - length);
            length += count > 0 ? (size_t)count : 0;
            asked[length] = 0;
        } while (count > 0 && strncmp(asked, "GET ", 4) == 0 && strstr(asked, "\r\n\r\n") == NULL);
        bool logged_in = strstr(asked, registry->wanted) != NULL;
        registry->logins += logged_in;
        const char *answer = logged_in ? nothing : refusal;
        send(caller, answer, strlen(answer), MSG_NOSIGNAL);
        shutdown(caller, SHUT_WR);
        while (read(caller, asked, sizeof asked) > 0)
            continue;
        close(caller);
    }
    return NULL;
}

void test_registry(void)
{
    blink_error *err = NULL;
    struct registry registry = {.listener = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    CHECK(bind(registry.listener, (struct sockaddr *)&address, size) == 0 && listen(registry.listener, 8) == 0);
    CHECK(getsockname(registry.listener, (struct sockaddr *)&address, &size) == 0);
    registry.wanted = "Basic cm9ib3Q6c2VjcmV0"; /* robot:secret */
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, serve, &registry) == 0);
    char name[64], image[80], config[512], login[96];
    snprintf(name, sizeof name, "127.0.0.1:%d", ntohs(address.sin_port));
    snprintf(image, sizeof image, "%s/made:1", name);
    snprintf(login, sizeof login, "%s=robot:secret", name);
    snprintf(config, sizeof config, "%s", scratch("docker.json"));
    FILE *file = fopen(config, "w");
    CHECK(file != NULL);
    fprintf(file, "{\"auths\": {\"%s\": {\"auth\": \"cm9ib3Q6c2VjcmV0\"}}}", name);
    CHECK(fclose(file) == 0);

    blink_options options;
    blink_options_init(&options, sizeof options);
    options.home = scratch("home");
    options.docker_config = "/dev/null/none"; /* Not that of whoever runs the tests. */
    blink *all;
    blink_image found = BLINK_IMAGE_INIT;
    OK(blink_open(&options, &all, &err));
    FAILS(BLINK_STATUS_IMAGE_UNAVAILABLE, blink_image_pull(all, image, NULL, NULL, NULL, &found, &err));
    CHECK(registry.logins == 0);
    blink_close(all);
    options.docker_config = config;
    OK(blink_open(&options, &all, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_image_pull(all, image, NULL, NULL, NULL, &found, &err));
    CHECK(registry.logins > 0);
    blink_close(all);
    registry.logins = 0;
    const char *credentials[] = {login};
    options.docker_config = "/dev/null/none";
    options.credentials = credentials;
    options.credentials_count = 1;
    OK(blink_open(&options, &all, &err));
    FAILS(BLINK_STATUS_NOT_FOUND, blink_image_pull(all, image, NULL, NULL, NULL, &found, &err));
    CHECK(registry.logins > 0);
    blink_close(all);
    CHECK(shutdown(registry.listener, SHUT_RDWR) == 0 && pthread_join(thread, NULL) == 0);
    close(registry.listener);
}
