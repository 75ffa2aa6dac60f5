const options = {
  url: "https://api.botpress.cloud/v1/chat/messages/",
  headers: {
    "Content-type": "application/json",
    Authorization: "...",
    "x-bot-id": "...",
    "x-integration-id": "...",
  },
  body: JSON.stringify({
    userId: "...",
    conversationId: "...",
    type: "text",
    payload: {
      text: "Hey There!",
    },
    tags: {},
  }),
};

axios
  .post(options.url, options.body, { headers: options.headers })
  .then((response) => {
    console.log(response.data.message.payload.text);
    setTimeout(() => {
      request(options, (q, w, e) => {
        const messages = JSON.parse(w.body).messages; // Messages List
        if (messages.length > 0) {
          res.json(messages[0]); // Sending the last message from Messages list ( Bot's Reply )
        } else {
          res.json({ error: "No messages found" }); // err
        }
      });
    }, 3000);
  })
  .catch((error) => {
    console.error(error);
    res.json({ error: "An error occurred" }); // err
  });
